"""The edge: turns REST into gRPC from the descriptors. Holds no database connection and decides no permission."""
