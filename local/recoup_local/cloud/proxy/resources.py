"""Says which IAM actions on which resource ARNs one call needs (after the service authorization reference).

Pure. A call it doesn't list needs its own name on resource "*", so that nothing passes by omission.
"""

from __future__ import annotations

from recoup_local.cloud.proxy.calls import Call

Check = tuple[str, str]

# Action -> the parameters naming its resources. "=type" adds the resource that the call creates.
_EC2_RESOURCES: dict[str, tuple[str, ...]] = {
    "DeleteVolume": ("VolumeId",), "ModifyVolume": ("VolumeId",), "AttachVolume": ("VolumeId", "InstanceId"),
    "DetachVolume": ("VolumeId", "InstanceId"), "CreateVolume": ("=volume",),
    "CreateSnapshot": ("VolumeId", "=snapshot"), "DeleteSnapshot": ("SnapshotId",),
    "ModifySnapshotTier": ("SnapshotId",), "RestoreSnapshotTier": ("SnapshotId",),
    "ReleaseAddress": ("AllocationId",), "AllocateAddress": ("=elastic-ip",),
    "AssociateAddress": ("AllocationId", "InstanceId"), "StopInstances": ("InstanceId",),
    "StartInstances": ("InstanceId",), "TerminateInstances": ("InstanceId",),
    "CreateImage": ("InstanceId", "=image", "=snapshot"), "DeregisterImage": ("ImageId",),
    "CreateTags": ("ResourceId",), "DeleteTags": ("ResourceId",),
}  # fmt: skip
_ID_TYPES = {
    "vol": "volume", "snap": "snapshot", "eipalloc": "elastic-ip", "i": "instance", "ami": "image",
    "lt": "launch-template", "eni": "network-interface", "sg": "security-group", "vpc": "vpc",
}  # fmt: skip
# These types carry no account in their ARNs.
_ACCOUNTLESS = frozenset({"snapshot", "image"})
# S3 calls whose permission has another name; on the bucket unless the call names a key.
_S3_PERMISSIONS = {
    "ListObjectsV2": "ListBucket", "ListObjects": "ListBucket", "HeadBucket": "ListBucket",
    "ListObjectVersions": "ListBucketVersions", "HeadObject": "GetObject", "ListBuckets": "ListAllMyBuckets",
    "DeleteObjects": "DeleteObject", "CreateMultipartUpload": "PutObject", "UploadPart": "PutObject",
    "CompleteMultipartUpload": "PutObject",
}  # fmt: skip
# Allowed to everybody with a valid key; no policy can deny it.
UNCONDITIONAL = frozenset({"sts:GetCallerIdentity"})


def needed_permissions(call: Call, account: str) -> tuple[Check, ...]:
    """(IAM action, resource ARN) pairs, all of which must be allowed for the call to be."""
    if call.service == "ec2":
        return _ec2(call, account)
    if call.service == "s3":
        return (_s3(call),)
    if call.name == "sts:AssumeRole":
        return _assume_role(call)
    return ((call.name, "*"),)


def ec2_arn(account: str, region: str, resource_id: str) -> str:
    """The ARN of an EC2 resource from its id."""
    kind = _ID_TYPES.get(resource_id.partition("-")[0], "unknown")
    return f"arn:aws:ec2:{region}:{'' if kind in _ACCOUNTLESS else account}:{kind}/{resource_id}"


def named_ids(call: Call) -> tuple[str, ...]:
    """The ids of existing EC2 resources that the call acts on."""
    parameters = _EC2_RESOURCES.get(call.action, ())
    return tuple(value for name in parameters if name[0] != "=" for value in call.values(name))


def _ec2(call: Call, account: str) -> tuple[Check, ...]:
    checks = [(call.name, ec2_arn(account, call.region, value)) for value in named_ids(call)]
    for name in _EC2_RESOURCES.get(call.action, ()):
        if name.startswith("="):
            owner = "" if name[1:] in _ACCOUNTLESS else account
            checks.append((call.name, f"arn:aws:ec2:{call.region}:{owner}:{name[1:]}/*"))
    # Tagging at creation needs ec2:CreateTags on what is created.
    for key, kind in call.params.items():
        if key.startswith("TagSpecification.") and key.endswith(".ResourceType"):
            owner = "" if kind in _ACCOUNTLESS else account
            checks.append(("ec2:CreateTags", f"arn:aws:ec2:{call.region}:{owner}:{kind}/*"))
    return tuple(checks) or ((call.name, "*"),)


def _s3(call: Call) -> Check:
    action = _S3_PERMISSIONS.get(call.action, call.action)
    if "versionId" in call.params and action == "GetObject":
        action = "GetObjectVersion"
    bucket, key = call.params.get("Bucket", ""), call.params.get("Key", "")
    if not bucket:
        return (f"s3:{action}", "*")
    if call.action == "DeleteObjects":
        key = "*"
    return (f"s3:{action}", f"arn:aws:s3:::{bucket}/{key}" if key else f"arn:aws:s3:::{bucket}")


def _assume_role(call: Call) -> tuple[Check, ...]:
    role = call.params.get("RoleArn", "")
    checks = [("sts:AssumeRole", role)]
    if "SourceIdentity" in call.params:
        checks.append(("sts:SetSourceIdentity", role))
    if any(key.startswith("Tags.") for key in call.params):
        checks.append(("sts:TagSession", role))
    return tuple(checks)
