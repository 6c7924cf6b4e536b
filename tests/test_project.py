"""The project as a whole: dependencies, rooms, platforms, start-up, settings.

Each rule is a function of source text that returns what breaks it, so that it is tried on a source that does.
"""

from __future__ import annotations

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from likelier.config import StageConfig
from tests.source_tree import ROOT, Module, called, imported, modules

# Dependencies

READ_BY_OTHERS = {
    "gguf": "transformers reads GGUF files with it",
    "bitsandbytes": "transformers quantises with it",
}


def requirements(*, dev: bool = False) -> dict[str, Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    lines = project["dependencies"] + [
        line for name in extras if dev or name != "dev" for line in extras[name]
    ]
    return {canonicalize_name(made.name): made for made in map(Requirement, lines)}


def imported_distributions() -> set[str]:
    tops = {name.split(".")[0] for module in modules() for name in imported(module.tree)}
    tops |= {name for module in modules() for name in _required(module.tree)}
    known = packages_distributions()
    foreign = tops - set(sys.stdlib_module_names) - {"likelier"}
    return {canonicalize_name(known.get(top, [top])[0]) for top in foreign}


def _required(tree: ast.AST) -> set[str]:
    """Packages of extras, imported by name: `_require("wandb")`."""
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and called(node) == "_require"]
    return {str(call.args[0].value) for call in calls if isinstance(call.args[0], ast.Constant)}


def test_every_import_is_a_dependency_and_every_dependency_is_imported() -> None:
    declared, used = set(requirements()), imported_distributions()
    assert used - declared == set(), "imported in src/, but no dependency in pyproject.toml"
    assert declared - used == set(READ_BY_OTHERS), "a dependency that nothing in src/ imports"


def test_constraints_pin_every_dependency_within_its_range() -> None:
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    optional = {"wandb", "bitsandbytes"}  # in no environment of CI
    needed = {name: made for name, made in requirements(dev=True).items() if name not in optional}
    assert set(needed) - set(pins) == set()
    assert [name for name, made in needed.items() if not made.specifier.contains(pins[name])] == []


# Rooms

ROOMS = "__main__ cli usage stages report labelling training engines scoring models data"
ORDER = tuple(ROOMS.split())
"""A room imports rooms further to the right alone."""
ALONE = ("theory", "objectives", "stats")
"""Imported by any room above `data`; of ours, `theory` imports the other two, and they but each other."""
COMMON = ("config", "manifest", "flags", "errors")
"""Imported by all rooms but those alone; of each other, to the right."""


def allowed(room: str) -> set[str]:
    if room in ALONE:
        return {*ALONE} - ({"theory"} if room != "theory" else set())
    if room in COMMON:
        return {*COMMON[COMMON.index(room) :]}
    if room == "likelier":
        return set()
    right = {*ORDER[ORDER.index(room) :]}
    return right | {*COMMON} | ({*ALONE} if room != "data" else set())


def wrong_ways(module: Module) -> list[str]:
    ours = {name for name in imported(module.tree) if name.startswith("likelier.")}
    rooms = {name.split(".")[1] for name in ours} - {"__version__"}
    return [f"{module.name} imports {room}" for room in sorted(rooms - allowed(module.room))]


def test_imports_between_rooms_run_one_way() -> None:
    assert {module.room for module in modules()} <= {"likelier", *ORDER, *ALONE, *COMMON}
    assert [wrong for module in modules() for wrong in wrong_ways(module)] == []


def test_an_import_the_wrong_way_is_found() -> None:
    upwards = Module("likelier.data.x", ast.parse("def f():\n    from likelier.scoring import scorer"))
    sideways = Module("likelier.stats.x", ast.parse("import likelier.errors"))
    assert wrong_ways(upwards) == ["likelier.data.x imports scoring"]
    assert wrong_ways(sideways) == ["likelier.stats.x imports errors"]
    back = Module("likelier.objectives.x", ast.parse("import likelier.theory.world"))
    assert wrong_ways(back) == ["likelier.objectives.x imports theory"]


def test_no_stage_imports_another_but_the_demo() -> None:
    stages = [module for module in modules() if module.name.startswith("likelier.stages.")]
    for module in stages:
        own = module.name.split(".")[2].split("_")[0]
        others = {name.split(".")[2] for name in imported(module.tree) if name.startswith("likelier.stages.")}
        if own != "demo":
            assert {other.split("_")[0] for other in others} <= {own, *_modules_named(own)}, module.name


def _modules_named(stage: str) -> set[str]:
    """What `from likelier.stages import check_tables` reads as: the module's own name."""
    return {
        module.name.split(".")[2]
        for module in modules()
        if module.name.startswith(f"likelier.stages.{stage}")
    }


# Platforms

UNIX_MODULES = {"fcntl", "grp", "posix", "pty", "pwd", "resource", "syslog", "termios", "tty"}
UNIX_NAMES = {
    "os": {
        "chown", "fchmod", "fork", "forkpty", "getegid", "geteuid", "getgid", "getloadavg", "getpgid", "getuid",
        "killpg", "mkfifo", "nice", "posix_fadvise", "posix_spawn", "sched_getaffinity", "setpgid", "setsid",
        "statvfs", "sysconf", "uname", "wait",
    },
    "signal": {
        "SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGQUIT", "SIGUSR1", "SIGUSR2", "alarm", "pause",
        "pthread_sigmask", "setitimer", "sigwait",
    },
}  # fmt: skip


def unix_only(module: Module) -> list[str]:
    """What Windows lacks: modules, and names that the source does not ask `hasattr` for first."""
    found = [name for name in imported(module.tree) if name.split(".")[0] in UNIX_MODULES]
    calls = [node for node in ast.walk(module.tree) if isinstance(node, ast.Call)]
    asked = {ast.unparse(call.args[1]).strip("'") for call in calls if called(call) == "hasattr"}
    for node in ast.walk(module.tree):
        if (
            isinstance(node, ast.Attribute)
            and node.attr in UNIX_NAMES.get(ast.unparse(node.value), set()) - asked
        ):
            found.append(ast.unparse(node))
    return [f"{module.name}: {name}" for name in found]


def text_without_encoding(module: Module) -> list[str]:
    """Text files opened in the platform's own encoding, which on Windows is not UTF-8."""
    found = []
    for call in [node for node in ast.walk(module.tree) if isinstance(node, ast.Call)]:
        name = called(call).rpartition(".")[2]
        if name not in ("open", "read_text", "write_text") or called(call) in ("os.open", "self._open"):
            continue
        words = [ast.unparse(value) for value in (*call.args, *(k.value for k in call.keywords))]
        binary = name == "open" and any(re.fullmatch(r"'[rwax]b\+?'", word) for word in words)
        if not binary and not any(keyword.arg == "encoding" for keyword in call.keywords):
            found.append(f"{module.name}, line {call.lineno}: {name} without encoding")
    return found


def test_nothing_in_src_that_windows_or_macos_lacks() -> None:
    assert [
        fault for module in modules() for fault in unix_only(module) + text_without_encoding(module)
    ] == []


def test_what_windows_lacks_is_found() -> None:
    source = "import os, fcntl\nos.fork()\nhasattr(os, 'sysconf') and os.sysconf('x')\npath.write_text('é')"
    module = Module("m", ast.parse(source))
    assert unix_only(module) == ["m: fcntl", "m: os.fork"]
    assert text_without_encoding(module) == ["m, line 4: write_text without encoding"]


# Start-up

HEAVY = {
    "datasets",
    "matplotlib",
    "numpy",
    "pandas",
    "peft",
    "pyarrow",
    "pydantic",
    "rich",
    "scipy",
    "torch",
    "transformers",
}


@pytest.mark.parametrize("words", [["--help"], ["--version"], []])
def test_help_imports_nothing_heavy(words: list[str]) -> None:
    assert _loaded_by(f"from likelier.cli import main; main({words!r})") & HEAVY == set()


def test_import_likelier_imports_nothing_heavy() -> None:
    assert _loaded_by("import likelier") & HEAVY == set()


def test_what_is_loaded_is_seen() -> None:
    assert "numpy" in _loaded_by("import likelier.data.trees")


def _loaded_by(statement: str) -> set[str]:
    """The modules of a fresh process after `statement`."""
    script = f"{statement}\nimport sys\nprint('loaded', *sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split())


# Settings


def configuration_names() -> list[str]:
    """`module:class` of every `StageConfig`, told by its bases, so that nothing is imported to find them."""
    found: list[str] = []
    bases = {"StageConfig"}
    for _ in range(3):  # a child may stand in a file before its parent's
        for module in modules():
            for node in [node for node in module.tree.body if isinstance(node, ast.ClassDef)]:
                if bases & {ast.unparse(base) for base in node.bases} and node.name not in bases:
                    bases.add(node.name)
                    found.append(f"{module.name}:{node.name}")
    return found


def configuration(name: str) -> type[StageConfig]:
    module, _, own = name.partition(":")
    return getattr(importlib.import_module(module), own)  # type: ignore[no-any-return]


def unread(config: type[StageConfig], sources: tuple[Module, ...]) -> set[str]:
    """Fields of `config` that no module which names it, a relative, or a protocol it fulfils, takes from a
    configuration."""
    others = map(configuration, configuration_names())
    family = {other.__name__ for other in others if issubclass(other, config) or issubclass(config, other)}
    family |= {
        name for name, fields in settings_protocols(sources).items() if fields <= set(config.model_fields)
    }
    read: set[str] = set()
    for module in sources:
        if family & {node.id for node in ast.walk(module.tree) if isinstance(node, ast.Name)}:
            read |= _read_fields(module.tree)
    return set(config.model_fields) - read


def settings_protocols(sources: tuple[Module, ...]) -> dict[str, set[str]]:
    """By name, the fields of each protocol that states some settings, and no method."""
    return {
        node.name: {ast.unparse(member.target) for member in node.body if isinstance(member, ast.AnnAssign)}
        for module in sources
        for node in module.tree.body
        if isinstance(node, ast.ClassDef)
        and node.name.endswith("Settings")
        and "Protocol" in map(ast.unparse, node.bases)
    }


def _read_fields(tree: ast.AST) -> set[str]:
    """What is taken from anything called `config` or `settings`: as an attribute, by `getattr` with a name (or with
    each of a tuple of names), or, before validation, by `values.get`."""
    read = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and _is_config(node.value):
            read.add(node.attr)
        elif isinstance(node, ast.Call) and called(node) == "values.get":
            read.add(ast.unparse(node.args[0]).strip("'"))
        elif isinstance(node, ast.Call) and called(node) == "getattr" and _is_config(node.args[0]):
            name = ast.unparse(node.args[1])
            read |= {name.strip("'")} if name.startswith("'") else _looped_over(tree, name)
    return read


def _looped_over(tree: ast.AST, name: str) -> set[str]:
    """The strings that `name` runs through in a comprehension over a tuple of them."""
    loops = [node for node in ast.walk(tree) if isinstance(node, ast.comprehension)]
    tuples = [
        loop.iter for loop in loops if ast.unparse(loop.target) == name and isinstance(loop.iter, ast.Tuple)
    ]
    return {str(item.value) for made in tuples for item in made.elts if isinstance(item, ast.Constant)}


def _is_config(node: ast.AST) -> bool:
    return ast.unparse(node).rpartition(".")[2] in ("config", "settings")


@pytest.mark.parametrize("name", configuration_names())
def test_no_setting_without_a_reader(name: str) -> None:
    assert unread(configuration(name), modules()) == set()


def test_a_setting_without_a_reader_is_found() -> None:
    from likelier.stages.label_config import LabelConfig

    reader = Module("m", ast.parse("def f(config: LabelConfig):\n    return config.out, config.samples"))
    assert unread(LabelConfig, (reader,)) == set(LabelConfig.model_fields) - {"out", "samples"}
