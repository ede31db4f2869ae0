"""SLURM's commands as scripts on the PATH: what they are told is kept in files, what they answer comes from files."""

from __future__ import annotations

from pathlib import Path

SINFO = "cpu*|1:00:00\ngpu|infinite\n"
# a job is refused once `refuse` names its number; the script that was submitted is kept under its number
SBATCH = """n=$(( $(cat count) + 1 ))
if [ "$n" = "$(cat refuse)" ]; then echo "sbatch: error: Batch job submission failed: No such account" >&2; exit 1; fi
echo $n > count
cp "$1" $n.sh
echo "Submitted batch job $n"
"""
ANSWER = 'echo "{0} $*" >> called\nif [ -s {0}_fails ]; then cat {0}_fails >&2; exit 1; fi\ncat {0}_says\n'
ANSWERING = ("sinfo", "squeue", "sacct", "scancel", "scontrol", "srun")


class FakeSlurm:
    """A cluster of nothing but words. queue: rows of squeue, NUMBER|STATE|REASON|NODE."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        for name, code in {"sbatch": SBATCH, **{name: ANSWER.format(name) for name in ANSWERING}}.items():
            (folder / f"{name}_says").touch()
            program = folder / name
            program.write_text(f"#!/bin/sh\ncd '{folder}'\n{code}")
            program.chmod(0o755)
        self.says("count", "100")
        self.says("refuse", "0")
        self.says("sinfo_says", SINFO)
        self.says("sacct_fails", "Slurm accounting storage is disabled")

    def says(self, name: str, text: str) -> None:
        """Sets what a command answers."""
        (self.folder / name).write_text(text)

    def queue(self, *rows: str) -> None:
        """Sets the rows of squeue."""
        self.says("squeue_says", "".join(f"{row}\n" for row in rows))

    @property
    def called(self) -> list[str]:
        """The calls so far, but those of sbatch."""
        file = self.folder / "called"
        return file.read_text().splitlines() if file.is_file() else []

    @property
    def submitted(self) -> dict[str, dict[str, str]]:
        """Number of each submitted job -> its options of sbatch, those without a value as ""; and what it starts."""
        found: dict[str, dict[str, str]] = {}
        for file in sorted(self.folder.glob("*.sh"), key=lambda file: int(file.stem)):
            lines = file.read_text().splitlines()
            options = (line.removeprefix("#SBATCH --").partition("=") for line in lines if line.startswith("#SBATCH"))
            found[file.stem] = {name: value.strip("'") for name, _, value in options}
            found[file.stem]["starts"] = next(line for line in lines if line.startswith("srun"))
        return found
