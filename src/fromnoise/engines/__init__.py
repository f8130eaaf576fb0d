"""How a module is executed: by torch as it stands (the reference), compiled by torch, or by OpenVINO.

An engine changes how fast a module runs, never what it means, and says by how much its answers differ.
"""
