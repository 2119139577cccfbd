"""LoRA adapters as versioned artefacts: registry, and serving them in process."""
