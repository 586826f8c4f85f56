"""The code generated from the protos of latchkey.v1."""
