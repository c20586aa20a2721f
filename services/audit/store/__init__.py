"""All SQL of the log: events under tenancy, the tree and its heads, and the sequencer's one flush."""

from services.audit.store.appending import (
    Connection,
    Head,
    find_known,
    lock_head,
    open_first_shard,
    read_chains,
    read_counters,
    take_over,
    write_batch,
)
from services.audit.store.archive import (
    list_archived,
    list_shards,
    mark_archived,
    mark_differing,
    mark_verified,
    read_leaves,
)
from services.audit.store.cosignatures import (
    count_cosigned,
    find_cosigned,
    has_cosignature,
    insert_cosignature,
    with_lines,
)
from services.audit.store.events import get_event, get_events, list_events, read_events, summarize
from services.audit.store.heads import find_head_entry, list_chains, replace_head_entries
from services.audit.store.listing import find_places
from services.audit.store.tree import (
    find_checkpoint,
    find_checkpoint_between,
    insert_checkpoint,
    read_head,
    read_nodes,
    read_ranges,
    read_tile,
)
from services.audit.store.turning import OpenShard, find_opening, get_first, read_closed_size, read_shard, turn

__all__ = [
    "Connection",
    "Head",
    "OpenShard",
    "count_cosigned",
    "find_checkpoint",
    "find_checkpoint_between",
    "find_cosigned",
    "find_head_entry",
    "find_known",
    "find_opening",
    "find_places",
    "get_event",
    "get_events",
    "get_first",
    "has_cosignature",
    "insert_checkpoint",
    "insert_cosignature",
    "list_archived",
    "list_chains",
    "list_events",
    "list_shards",
    "lock_head",
    "mark_archived",
    "mark_differing",
    "mark_verified",
    "open_first_shard",
    "read_chains",
    "read_closed_size",
    "read_counters",
    "read_events",
    "read_head",
    "read_leaves",
    "read_nodes",
    "read_ranges",
    "read_shard",
    "read_tile",
    "replace_head_entries",
    "summarize",
    "take_over",
    "turn",
    "with_lines",
    "write_batch",
]
