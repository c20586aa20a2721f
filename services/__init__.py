"""The processes of Recoup, one package each; `_mesh` is the plumbing that they share."""

import os

# gRPC reads it as it is loaded. In its older event loop a call costs a client a third less processor time and a server
# a sixth less (grpcio 1.85): the newer one hands each read and each write to threads of its own.
os.environ.setdefault("GRPC_EXPERIMENTS", "-event_engine_client,-event_engine_listener")
