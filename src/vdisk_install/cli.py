"""The command line of ``vdisk-install``."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from vdisk_install import __version__, dashboard
from vdisk_install.checks import Report, check
from vdisk_install.errors import InstallError
from vdisk_install.places import (
    MODULE,
    check_module_directory,
    mgr_runs,
    module_directory,
    package_of,
    source_directory,
)
from vdisk_install.tree import copy_module, is_vdisk, refuse_foreign, same_tree, staging, swap_in, take_away


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="vdisk-install",
        description="Put the vdisk module where ceph-mgr finds it. To be run on every host that has a ceph-mgr.",
    )
    parser.add_argument(
        "--path",
        type=Path,
        metavar="DIR",
        help="the directory of mgr modules; by default what ceph.conf, the cluster or the packages say",
    )
    action = parser.add_mutually_exclusive_group()
    action.add_argument("--link", action="store_true", help="link to the installed package in place of copying it")
    action.add_argument("--check", action="store_true", help="only check what is there")
    action.add_argument("--uninstall", action="store_true", help="remove the module again")
    parser.add_argument("--version", action="version", version=f"vdisk {__version__}")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit code."""
    args = _parser().parse_args(argv)
    try:
        directory = check_module_directory(args.path) if args.path is not None else module_directory()
        target = directory / MODULE
        if args.check:
            return _check(target)
        _refuse_packaged(target)
        if args.uninstall:
            return _uninstall(target)
        return _install(source_directory(), target, link=args.link)
    except InstallError as error:
        print(f"vdisk-install: {error}", file=sys.stderr)
    except OSError as error:
        print(f"vdisk-install: {error.filename or ''}: {error.strerror or error}", file=sys.stderr)
    return 1


def _package(target: Path) -> str:
    """Return the package of the distribution that the module in the target's place belongs to, or ''."""
    return package_of(target / "module.py")


def _refuse_packaged(target: Path) -> None:
    """Raise when the package manager owns the target: it would go on to answer for files that it did not unpack."""
    package = _package(target)
    if package:
        raise InstallError(f"{target} belongs to the package {package}: upgrade or remove that package instead")


def _install(source: Path, target: Path, *, link: bool) -> int:
    refuse_foreign(target)
    dashboard.refuse_foreign_controller(target.parent)
    there = os.path.lexists(target)
    if there and (target.is_symlink() and target.resolve() == source if link else same_tree(source, target)):
        report = check(target)
        if not report.problems:
            _warn(report)
            if dashboard.put(target.parent):
                print(f"vdisk {__version__} was in {target} already ({_figures(report)}); added to the dashboard")
                print(_next_steps(there))
                return 0
            print(f"vdisk {__version__} is in {target} already ({_figures(report)}); nothing was changed")
            return 0
    with staging(target.parent) as work:
        fresh = work / MODULE
        if link:
            fresh.symlink_to(source)
        else:
            copy_module(source, fresh)
        report = check(fresh, target)
        _raise_problems(report, "is not installed, nothing was changed")
        swap_in(fresh, target)
    _warn(report)
    # After the module, because it loads nothing without it.
    dashboard.put(target.parent)
    print(f"vdisk {__version__} {'linked' if link else 'installed'} in {target} ({_figures(report)})")
    print(_about_dashboard(target.parent))
    print(_next_steps(there))
    return 0


def _check(target: Path) -> int:
    if not os.path.lexists(target):
        raise InstallError(f"{target} does not exist: vdisk is not installed there")
    refuse_foreign(target)
    report = check(target)
    _raise_problems(report, "does not work")
    _warn(report)
    source = source_directory()
    current = target.resolve() == source or same_tree(source, target)
    version = f"vdisk {__version__}" if current else f"another version than vdisk {__version__}, which this program has"
    linked = f", a link to {os.readlink(target)}" if target.is_symlink() else ""
    package = _package(target)
    packaged = f", of the package {package}" if package else ""
    print(f"{target} is {version}{linked}{packaged} ({_figures(report)})")
    print(_about_dashboard(target.parent))
    return 0


def _uninstall(target: Path) -> int:
    if dashboard.take(target.parent):
        print(f"removed from the dashboard in {target.parent / 'dashboard'}")
    if not os.path.lexists(target):
        print(f"vdisk is not installed in {target.parent}; nothing was changed")
        return 0
    if not (target.is_symlink() and not target.exists()) and not is_vdisk(target):
        raise InstallError(f"{target} is not the vdisk module: it stays")
    with staging(target.parent) as work:
        take_away(target, work)
    print(f"removed {target}")
    if mgr_runs():
        print("A mgr that has it loaded keeps it until it restarts: ceph mgr module disable vdisk")
    return 0


def _about_dashboard(modules: Path) -> str:
    """Tell whether the dashboard of this host shows vdisk."""
    if dashboard.controllers(modules) is None:
        return "the Ceph dashboard is not installed on this host (package ceph-mgr-dashboard); vdisk works without it"
    if dashboard.in_place(modules):
        return "the Ceph dashboard shows it at /vdisk"
    return "the Ceph dashboard does not show it: run vdisk-install again"


def _raise_problems(report: Report, outcome: str) -> None:
    if report.problems:
        more = f" (and {len(report.problems) - 1} more)" if len(report.problems) > 1 else ""
        raise InstallError(f"the module {outcome}: {report.problems[0]}{more}")


def _warn(report: Report) -> None:
    for line in report.warnings:
        print(f"vdisk-install: warning: {line}", file=sys.stderr)


def _figures(report: Report) -> str:
    return f"{report.files} files, {report.commands} commands, {report.options} options, checked"


def _next_steps(update: bool) -> str:
    """Return what is left to do. A mgr looks for modules when it starts, and keeps the code that it has loaded."""
    lines = ["", "Next, when this is done on every host that has a ceph-mgr:"]
    if update or mgr_runs():
        why = "the running mgrs go on with the code they have loaded" if update else "a mgr looks for modules at start"
        lines.append(f"    systemctl restart ceph-mgr.target    # on each of them: {why}")
    lines += [
        "    ceph mgr module enable vdisk         # once for the cluster; does nothing if it is enabled",
        "    ceph vdisk status",
    ]
    return "\n".join(lines)
