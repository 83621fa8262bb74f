"""The contract's services: protobuf in, use case, protobuf out."""
