"""Puts the program and its SBOM into the wheel, whose tag says for which machine it is."""

from __future__ import annotations

import os
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class Program(BuildHookInterface[Any]):
    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        build_data["pure_python"] = False
        build_data["tag"] = os.environ["MLFLOWFS_WHEEL_TAG"]
        build_data["shared_scripts"] = {os.environ["MLFLOWFS_WHEEL_PROGRAM"]: "mlflowfs"}
        build_data["sbom_files"] = [os.environ["MLFLOWFS_WHEEL_SBOM"]]
