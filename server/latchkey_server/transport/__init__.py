"""What speaks gRPC: interceptors, servicers and the conversion between messages and domain values."""
