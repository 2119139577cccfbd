"""LoRA adapters as versioned artefacts: registry, gate, and serving them in process."""
