"""What pricing decides, as pure functions and frozen values: no SQL, no protobuf, no cloud, no clock."""
