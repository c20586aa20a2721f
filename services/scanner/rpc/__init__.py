"""The scanner's RPCs: decode, call, encode."""
