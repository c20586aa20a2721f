"""The catalogue of detections. Each is one pure function in its own module; adding one is adding it to this list."""

from __future__ import annotations

from services.scanner.detections import ebs_gp2, ebs_unattached, ec2_stopped, eip_unassociated, snapshot_old
from services.scanner.detections.base import Detection

DETECTIONS: tuple[Detection, ...] = (
    ebs_unattached.DETECTION,
    ebs_gp2.DETECTION,
    snapshot_old.DETECTION,
    eip_unassociated.DETECTION,
    ec2_stopped.DETECTION,
)

READ_PERMISSIONS: tuple[str, ...] = tuple(sorted({permission for d in DETECTIONS for permission in d.reads}))
