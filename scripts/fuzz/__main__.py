"""Hostile files for every reader: ``python -m scripts.fuzz [READER ...]``. Exit code 1 if a reader breaks a rule."""

from __future__ import annotations

import random
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import click

from exporter.commands import terminal
from runtimes import files
from runtimes.escaping import shell_word
from scripts.fuzz.campaign import Campaign, Corpus, Finding
from scripts.fuzz.judge import judge
from scripts.fuzz.readers import READERS

SEEDS = 1 << 32


@click.command()
@click.argument("names", nargs=-1, type=click.Choice(list(READERS)), metavar="[READER]...")
@click.option("--seconds", type=click.FloatRange(0), default=60.0, show_default=True, help="Time for each reader.")
@click.option("--seed", type=click.IntRange(0), help="Seed of all files.  [default: another one each time]")
@click.option("--jobs", type=click.IntRange(1), default=1, show_default=True, help="Readers at the same time.")
@click.option("--case", type=click.IntRange(0), help="Read the file of this one case again; needs --seed.")
@click.option("--file", type=click.Path(path_type=Path, exists=True, dir_okay=False), help="Read this one file.")
@click.option(
    "--out", type=click.Path(path_type=Path), default="out/fuzz", show_default=True, help="Folder of findings."
)
def main(
    names: tuple[str, ...], seconds: float, seed: int | None, jobs: int, case: int | None, file: Path | None, out: Path
) -> None:
    """Attack the readers of rexport with mutated files, by default all of them.

    Each file follows from the seed, the reader and the number of the case. A file that breaks a rule is kept, and the
    command that reads it again is printed.
    """
    chosen = names or tuple(READERS)
    if file is not None or case is not None:
        if len(names) != 1 or (case is not None and seed is None):
            raise click.UsageError("--file and --case need one READER, and --case needs --seed")
        raise SystemExit(_repeat(names[0], seed or 0, case, file))
    seed = random.SystemRandom().randrange(SEEDS) if seed is None else seed
    click.echo(f"seed {seed}, {seconds:g} s for each of {len(chosen)} readers")
    campaigns = [Campaign(name, seed, seconds) for name in chosen]
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for campaign, _ in zip(campaigns, pool.map(Campaign.run, campaigns), strict=True):
                click.echo(f"{campaign.reader}: {campaign.cases:,} files, {len(campaign.findings)} findings")
                for finding in campaign.findings:
                    _report(finding, out)
        except BaseException:
            for campaign in campaigns:
                campaign.stop()
            raise
    raise SystemExit(1 if any(campaign.findings for campaign in campaigns) else 0)


def _report(finding: Finding, out: Path) -> None:
    """Keep the file of a finding, and print how to read it again."""
    with tempfile.TemporaryDirectory() as folder:
        content = Corpus(READERS[finding.reader], Path(folder)).content(finding.seed, finding.case)
    target = out / f"{finding.reader}-{finding.seed}-{finding.case}"
    files.check_writable(out)
    with files.write_atomically(target) as temporary:
        temporary.write_bytes(content)
    click.echo(f"  {finding.fault}")
    click.echo(f"  again: python -m scripts.fuzz {finding.reader} --file {shell_word(target)}")
    click.echo(f"     or: python -m scripts.fuzz {finding.reader} --seed {finding.seed} --case {finding.case}")


def _repeat(name: str, seed: int, case: int | None, file: Path | None) -> int:
    """Read one file, print what happens, and return the exit code."""
    reader = READERS[name]
    with tempfile.TemporaryDirectory() as folder:
        content = (
            file.read_bytes() if file is not None else Corpus(reader, Path(folder, "samples")).content(seed, case or 0)
        )
        scratch = Path(folder, "scratch")
        scratch.mkdir()
        fault, refusal = judge(reader, scratch, content)
    click.echo(f"{name}: {fault or refusal or 'the file is read'}")
    return 0 if fault is None else 1


if __name__ == "__main__":
    terminal.run(main)
