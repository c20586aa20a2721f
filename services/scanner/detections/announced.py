"""What the detections of Azure and Google Cloud will read. None of them runs yet: a connection is asked for it once.

Only reads of configuration and metrics, never of data: no disk's content, no key, no secret.
"""

from __future__ import annotations

from collections.abc import Mapping

# Finding out which subscriptions and projects there are, and what is allowed there: what connections use today.
AZURE_DISCOVERY = ("Microsoft.Authorization/permissions/read", "Microsoft.Resources/subscriptions/read")
GCP_DISCOVERY = ("resourcemanager.projects.get",)

# Azure: resource provider operations (Azure permissions reference).
AZURE: Mapping[str, tuple[str, ...]] = {
    "azure.disk.unattached": ("Microsoft.Compute/disks/read",),
    "azure.snapshot.old": ("Microsoft.Compute/snapshots/read",),
    "azure.publicip.orphan": ("Microsoft.Network/publicIPAddresses/read",),
    "azure.vm.stopped": (
        "Microsoft.Compute/virtualMachines/instanceView/read",
        "Microsoft.Compute/virtualMachines/read",
    ),
    "azure.vm.idle": ("Microsoft.Compute/virtualMachines/read", "Microsoft.Insights/metrics/read"),
    "azure.appservice.empty_plan": ("Microsoft.Web/serverfarms/read",),
    "azure.loadbalancer.idle": ("Microsoft.Network/loadBalancers/read",),
    "azure.natgateway.idle": ("Microsoft.Network/natGateways/read",),
    "azure.applicationgateway.idle": ("Microsoft.Network/applicationGateways/read",),
    "azure.vnetgateway.idle": (
        "Microsoft.Network/connections/read",
        "Microsoft.Network/virtualNetworkGateways/read",
    ),
    "azure.nic.orphan": ("Microsoft.Network/networkInterfaces/read",),
}
# Google Cloud: IAM permissions (IAM permissions reference).
GCP: Mapping[str, tuple[str, ...]] = {
    "gcp.disk.unattached": ("compute.disks.list",),
    "gcp.address.reserved": ("compute.addresses.list", "compute.globalAddresses.list"),
    "gcp.vm.idle": ("compute.instances.list", "monitoring.timeSeries.list"),
    "gcp.vm.terminated": ("compute.disks.list", "compute.instances.list"),
    "gcp.image.unused": ("compute.images.list",),
    "gcp.snapshot.old": ("compute.snapshots.list",),
    "gcp.sql.idle": ("cloudsql.instances.list", "monitoring.timeSeries.list"),
    "gcp.forwardingrule.idle": (
        "compute.backendServices.list",
        "compute.forwardingRules.list",
        "compute.globalForwardingRules.list",
    ),
    "gcp.reservation.unused": ("compute.reservations.list",),
}


def reads(announced: Mapping[str, tuple[str, ...]], discovery: tuple[str, ...]) -> tuple[str, ...]:
    """All that a connection is asked for, in order."""
    return tuple(sorted({*discovery, *(permission for each in announced.values() for permission in each)}))
