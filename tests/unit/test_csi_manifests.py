"""deploy/kubernetes: every manifest fits the schema of its kind, and they fit together."""

import functools
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from vdisk_csi.cli import parse
from vdisk_csi.config import DRIVER_NAME
from vdisk_csi.params import parse_snapshot_parameters, parse_volume_parameters

DIRECTORY = Path(__file__).resolve().parents[2] / "deploy/kubernetes"
#: Versions of Kubernetes whose schemas the manifests have to fit.
VERSIONS = ("1.29", "1.34")
#: What is no part of Kubernetes itself, and what it has to have.
CUSTOM = {
    "VolumeSnapshotClass": ("snapshot.storage.k8s.io/v1", {"driver": str, "deletionPolicy": str}),
    "VolumeSnapshot": ("snapshot.storage.k8s.io/v1", {"spec": dict}),
    "VolumeGroupSnapshotClass": ("groupsnapshot.storage.k8s.io/v1beta1", {"driver": str, "deletionPolicy": str}),
    "VolumeGroupSnapshot": ("groupsnapshot.storage.k8s.io/v1beta1", {"spec": dict}),
    "Kustomization": ("kustomize.config.k8s.io/v1beta1", {"resources": list}),
}


@functools.cache
def manifests() -> list[tuple[str, dict[str, Any]]]:
    """Every document of every file."""
    return [
        (f"{path.relative_to(DIRECTORY)}-{number}", document)
        for path in sorted(DIRECTORY.rglob("*.yaml"))
        for number, document in enumerate(yaml.safe_load_all(path.read_text()))
    ]


def of_kind(kind: str) -> list[dict[str, Any]]:
    """The documents of a kind."""
    return [document for _, document in manifests() if document["kind"] == kind]


def container(kind: str) -> dict[str, Any]:
    """The driver's own container in a workload."""
    (workload,) = of_kind(kind)
    found: dict[str, Any] = next(
        each for each in workload["spec"]["template"]["spec"]["containers"] if each["name"] == "vdisk-csi"
    )
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("document", [pytest.param(found, id=name) for name, found in manifests()])
def test_a_manifest_fits_its_schema(document: dict[str, Any], version: str) -> None:
    if document["kind"] in CUSTOM:
        api, fields = CUSTOM[document["kind"]]
        assert document["apiVersion"] == api
        for field, kind in fields.items():
            assert isinstance(document[field], kind), field
        return
    kubernetes_validate.validate(document, version, strict=True)


def test_the_schemas_are_really_looked_at() -> None:
    (driver,) = of_kind("CSIDriver")
    for broken in ({**driver, "spec": {**driver["spec"], "attachRequired": "yes"}}, {**driver, "nonsense": 1}):
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


def test_the_manifests_fit_together() -> None:
    (driver,), (storage,), (snapshots,) = of_kind("CSIDriver"), of_kind("StorageClass"), of_kind("VolumeSnapshotClass")
    (groups,) = of_kind("VolumeGroupSnapshotClass")
    names = {driver["metadata"]["name"], storage["provisioner"], snapshots["driver"], groups["driver"]}
    assert names == {DRIVER_NAME}
    parse_volume_parameters(storage["parameters"])
    parse_snapshot_parameters(snapshots.get("parameters", {}))
    accounts = {account["metadata"]["name"] for account in of_kind("ServiceAccount")}
    for workload in [*of_kind("Deployment"), *of_kind("DaemonSet")]:
        spec = workload["spec"]["template"]["spec"]
        assert spec["serviceAccountName"] in accounts
        volumes = {volume["name"] for volume in spec["volumes"]}
        for each in spec["containers"]:
            assert {mount["name"] for mount in each["volumeMounts"]} <= volumes
    added, kustomization = sorted(of_kind("Kustomization"), key=lambda found: "patches" not in found)
    assert all((DIRECTORY / name).exists() for name in kustomization["resources"])
    assert all((DIRECTORY / "groups" / name).exists() for name in added["resources"])
    test, add = yaml.safe_load(added["patches"][0]["patch"])
    containers = of_kind("Deployment")[0]["spec"]["template"]["spec"]["containers"]
    number = int(test["path"].split("/")[5])
    assert containers[number]["name"] == test["value"] == "snapshotter"
    assert add["path"] == f"/spec/template/spec/containers/{number}/args/-"
    sidecars = {each["name"] for each in of_kind("Deployment")[0]["spec"]["template"]["spec"]["containers"]}
    assert {"provisioner", "snapshotter", "resizer", "health-monitor"} <= sidecars


def test_the_command_lines_are_ones_that_the_driver_takes() -> None:
    controller, _ = parse(container("Deployment")["args"])
    assert (controller.controller, controller.node) == (True, False)
    node, _ = parse(container("DaemonSet")["args"])
    assert (node.controller, node.node) == (False, True)
    assert container("DaemonSet")["securityContext"] == {"privileged": True}
    assert container("Deployment")["securityContext"]["allowPrivilegeEscalation"] is False
