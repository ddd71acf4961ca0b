"""Command lines: refuse a mistake in one line before anything heavy starts, and keep noise away."""

from __future__ import annotations

import difflib
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn, TextIO

import hydra
from filelock import FileLock, Timeout
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from masa.cli import sweep
from masa.cli.arguments import is_multirun, make_directory, path_arguments, quoted_path
from masa.cli.config_store import conf_dir
from masa.config import new_name
from masa.errors import ConfigError, TrainingError
from masa.plugins import import_from_working_directory
from masa.ranks import first_rank

Check = Callable[[DictConfig], object]
Describe = Callable[[DictConfig], str | None]
Directory = Callable[[DictConfig, Path], object]
Arguments = Callable[[Sequence[str]], list[str]]
LOCK = ".lock"
"""File in a directory that a process has to itself."""


def hydra_main(
    program: str,
    config_name: str,
    check: Check,
    run: Callable[[DictConfig], object],
    arguments: Arguments = path_arguments,
    describe: Describe = lambda cfg: None,
    directory: Directory = lambda cfg, out: None,
) -> None:
    """Run a Hydra application on `conf/`.

    Args:
        program: name of the console script, for its messages.
        config_name: primary config.
        check: raises ConfigError for a config that cannot be run; called for every combination of a
            multirun before the first job starts.
        run: one job.
        arguments: makes of a command line one that Hydra takes.
        describe: text that is printed in place of a run; None where there is to be one.
        directory: raises ConfigError for a run that cannot go into its directory; called before
            `check`, and not for a multirun, whose jobs do it themselves.
    """
    # threads that spin for long while waiting stop each other where something else runs as well:
    # 30 times slower was seen; threads that never spin lose half of the speed on small operators
    os.environ.setdefault("GOMP_SPINCOUNT", "20000")
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    import_from_working_directory()
    folder = str(conf_dir())
    try:
        sys.argv[1:] = arguments(sys.argv[1:])
    except ConfigError as error:
        fail(program, str(error))
    overrides = [arg for arg in sys.argv[1:] if not arg.startswith("-")]
    sweeps = is_multirun(sys.argv[1:])
    swept: Path | None = None
    if {"-h", "--help", "--hydra-help", "-c", "--cfg", "-i", "--info"} & set(sys.argv[1:]):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # masa-train --help | head
    else:
        try:
            with hydra.initialize_config_dir(folder, version_base="1.3"):
                described = False
                for combination in sweep.combinations(config_name, overrides):
                    cfg = hydra.compose(config_name, [*combination, "++output_dir=."])
                    if (text := describe(cfg)) is not None:
                        described = True
                        print(f"{' '.join(combination)}\n\n{text}\n" if sweeps else text)
                        continue
                    if not sweeps:
                        out = sweep.run_directory(config_name, overrides)
                        # pathlib would raise for a name that is too long
                        if os.path.exists(out):
                            make_directory(out, "hydra.run.dir")
                        directory(cfg, out)
                    check(cfg)
                if described:
                    return
                if sweeps:
                    swept = sweep.sweep_directory(config_name, overrides)
                    sys.argv.append(f"hydra.sweep.dir={quoted_path(str(swept))}")
                else:
                    make_directory(out, "hydra.run.dir")
                    sys.argv.append(f"hydra.run.dir={quoted_path(str(out))}")
        except (ConfigError, TrainingError, HydraException, OmegaConfBaseException) as error:
            fail(program, one_line(error, config_name, overrides))

    def job(cfg: DictConfig) -> float | None:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            return sweep.run_job(program, cfg)
        try:
            run(cfg)
        except ConfigError as error:
            fail(program, str(error))
        except TrainingError as error:
            logging.getLogger("masa.errors").exception("the run cannot go on")
            fail(program, str(error), status=1)
        return None

    try:
        hydra.main(config_path=folder, config_name=config_name, version_base="1.3")(job)()
    except KeyboardInterrupt:
        fail(program, "interrupted", status=130)
    if swept is not None and (swept / sweep.FAILED).exists():
        failed = (swept / sweep.FAILED).read_text().rstrip()
        count = failed.count("\n") + 1
        fail(program, f"{count} job{'s' if count > 1 else ''} failed:\n{failed}", status=1)


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Have `directory` to this process, or to the ranks of its job.

    Raises:
        ConfigError: another process works there, or it cannot be made or written to.
    """
    make_directory(directory, "output_dir")
    lock = FileLock(directory / LOCK, blocking=False)
    try:
        # the ranks of a job share its directory, and one of them speaks for all
        if first_rank():
            lock.acquire()
    except Timeout as error:
        raise ConfigError(
            f"another run is at work in {directory}: wait for it, or choose another hydra.run.dir"
        ) from error
    try:
        yield
    finally:
        lock.release()


def fail(program: str, message: str, status: int = 2) -> NoReturn:
    """One line on stderr, and out; what all ranks refuse alike is said by one of each node."""
    ranks = [os.environ.get(name, "0") for name in ("LOCAL_RANK", "SLURM_LOCALID")]
    if status != 2 or set(ranks) == {"0"}:
        print(f"{program}: error: {message}", file=sys.stderr)
    raise SystemExit(status)


def one_line(error: Exception, config_name: str, overrides: Sequence[str]) -> str:
    """What is wrong with a command's settings, in one line.

    Args:
        error: of Hydra, OmegaConf or of this project.
        config_name: primary config.
        overrides: of the command.
    """
    folder = str(conf_dir())
    # OmegaConf puts what a resolver of this project refuses into a message of its own
    reason: BaseException | None = error
    while not (reason is None or isinstance(reason, ConfigError)):
        reason = reason.__context__
    error = reason or error
    text = " ".join(str(error if str(error) else error.__cause__).split())
    renamed = new_name(f"{text} {error.__cause__}")
    if renamed:
        return renamed
    mistyped = re.search(r"Could not override '([^']+)'", text)
    if mistyped:
        # of a whole dict, the key in it
        inner = re.search(r"full_key: (\S+)", str(error.__cause__))
        key = max(mistyped[1], inner[1] if inner else "", key=len)
        with hydra.initialize_config_dir(folder, version_base="1.3"):
            by_default = _keys(hydra.compose(config_name))
            keys = _keys(hydra.compose(config_name, [*filter(_chooses, overrides)]))
        if key in by_default:
            return f"there is no setting {key} for the {key.split('.')[0]} that this command names"
        close = difflib.get_close_matches(key, keys, 1)
        hint = f"; did you mean {close[0]}?" if close else "; --help lists the groups and keys"
        return f"there is no setting {key}{hint}"
    missing = re.search(
        r"Could not find '([^']+)' Available options in '([^']+)': (.*?)(?: Config|$)", text
    )
    if missing:
        return _offers(missing[2], missing[1].rpartition("/")[2], missing[3].split())
    unknown = re.search(r"Could not load '([^']+)/([^/']+)'", text)
    if unknown:
        with hydra.initialize_config_dir(folder, version_base="1.3"):
            options = GlobalHydra.instance().config_loader().get_group_options(unknown[1])
        if options:
            return _offers(unknown[1], unknown[2], options)
    return text


def _offers(group: str, name: str, options: Sequence[str]) -> str:
    # those that begin with _ are bases of others
    shown = ", ".join(option for option in options if not option.startswith("_"))
    return f"there is no {group}/{name}; {group} offers: {shown}"


def _chooses(override: str) -> bool:
    """Whether an override names a file of a group, or a list of them; a sweep names none."""
    group, _, name = override.partition("=")
    names = name[1:-1].split(",") if name.startswith("[") else [name]
    loader = GlobalHydra.instance().config_loader()
    return {*names} <= {*loader.get_group_options(group.lstrip("+").partition("@")[0])}


def _keys(cfg: DictConfig, prefix: str = "") -> list[str]:
    keys = []
    for name in map(str, cfg):
        node = cfg._get_node(name)
        keys.append(f"{prefix}{name}")
        if OmegaConf.is_dict(node) and isinstance(node, DictConfig):
            keys += _keys(node, f"{prefix}{name}.")
    return keys


def quiet(log_file: Path) -> None:
    """Send all log lines and warnings to `log_file`; on the screen stand only the run's own."""
    import lightning.pytorch  # noqa: F401  (it installs its own handlers when imported)
    from transformers.utils import logging as transformers_logging

    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    log_file.parent.mkdir(parents=True, exist_ok=True)
    handler = logging.FileHandler(log_file)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    noisy = ("vllm", "lightning", "lightning.pytorch", "lightning.fabric", "torch", "py.warnings")
    for name in ("masa.errors", "asyncio", "verifiers", *noisy):
        logger = logging.getLogger(name)
        logger.handlers = [handler]
        logger.propagate = False
    ours = logging.getLogger("masa")
    ours.handlers = [handler, logging.StreamHandler()]
    ours.setLevel(logging.INFO)
    ours.propagate = False
    logging.captureWarnings(True)
    # a full disk takes no line of the log either: what stops the run says so, in one line
    logging.raiseExceptions = False
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()


@contextmanager
def results_alone_on_stdout() -> Iterator[None]:
    """Send what libraries write to stdout to stderr: the results may go into a pipe."""
    with _redirected(sys.stdout, 1, 2):
        yield


@contextmanager
def native_stderr_to(log_file: Path) -> Iterator[None]:
    """Send what compiled code writes to stderr, past Python's logging, to `log_file`."""
    with log_file.open("a") as file, _redirected(sys.stderr, 2, file.fileno()):
        yield


@contextmanager
def _redirected(stream: TextIO, descriptor: int, target: int) -> Iterator[None]:
    stream.flush()
    kept = os.dup(descriptor)
    os.dup2(target, descriptor)
    try:
        yield
    finally:
        stream.flush()
        os.dup2(kept, descriptor)
        os.close(kept)
