"""What stands between a caller and a model: clients around a client, and the vendors' own.

`equip` in `rlhi_plugin.calls.stack` puts them together. Nothing is imported here, so that `rlhi_plugin.chat` may use a
part without its vendors.
"""
