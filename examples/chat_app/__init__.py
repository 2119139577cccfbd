"""The parts of `examples/chat_app.py`: the assistant, and its page."""
