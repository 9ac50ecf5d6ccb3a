"""Proves that a container's CPU quota is known where the cores are counted, in both versions of cgroups."""

import math
import os
from pathlib import Path

import pytest

from job.agent.cores import parse_cfs, parse_cpu_max, quota_cores, usable_cores


@pytest.mark.parametrize(
    ("text", "cores"), [("max 100000\n", math.inf), ("100000 100000\n", 1.0), ("150000 100000\n", 1.5)]
)
def test_version_2_says_it_in_one_line(text: str, cores: float) -> None:
    assert parse_cpu_max(text) == cores


@pytest.mark.parametrize(("quota", "cores"), [("-1\n", math.inf), ("200000\n", 2.0), ("50000\n", 0.5)])
def test_version_1_says_it_in_two_files(quota: str, cores: float) -> None:
    assert parse_cfs(quota, "100000\n") == cores


def write(folder: Path, **files: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_a_container_sees_its_own_quota_at_the_root(tmp_path: Path) -> None:
    write(tmp_path, cpu__max="100000 100000\n", own="0::/\n")
    assert quota_cores(tmp_path, tmp_path / "own") == 1.0


def test_the_least_of_all_groups_above_counts(tmp_path: Path) -> None:
    write(tmp_path, own="0::/system.slice/baton.service\n")
    write(tmp_path / "system.slice", cpu__max="300000 100000\n")
    write(tmp_path / "system.slice/baton.service", cpu__max="max 100000\n")
    assert quota_cores(tmp_path, tmp_path / "own") == 3.0


@pytest.mark.parametrize("mounted", ["cpu", "cpu,cpuacct"])
def test_version_1_is_found_where_its_controller_is_mounted(tmp_path: Path, mounted: str) -> None:
    write(tmp_path, own="7:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n0::/\n")
    write(tmp_path / mounted / "docker/abc", cpu__cfs_quota_us="150000\n", cpu__cfs_period_us="100000\n")
    assert quota_cores(tmp_path, tmp_path / "own") == 1.5


def test_a_path_of_the_host_is_not_there_in_the_container_whose_root_says_it(tmp_path: Path) -> None:
    write(tmp_path, own="4:cpu,cpuacct:/docker/abc\n")
    write(tmp_path / "cpu", cpu__cfs_quota_us="100000\n", cpu__cfs_period_us="100000\n")
    assert quota_cores(tmp_path, tmp_path / "own") == 1.0


def test_without_cgroups_there_is_no_quota(tmp_path: Path) -> None:
    assert quota_cores(tmp_path, tmp_path / "own") == math.inf
    write(tmp_path, own="0::/\n")
    assert quota_cores(tmp_path, tmp_path / "own") == math.inf


def test_no_more_cores_are_usable_than_the_process_may_run_on() -> None:
    assert 0 <= usable_cores() <= len(os.sched_getaffinity(0))
