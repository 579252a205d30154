"""The scheduler's job that this process is part of.

Layer: motools.cache. Imports motoolsd.wire.
Invariant: of the environment nothing is read but the number of a job.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Final

from motoolsd.wire.origins import NAME_SIZE_MAX

ELLIPSIS: Final = "…"
JOB_VARIABLE: Final = "MOTOOLS_JOB_ID"


def shortened(text: str, size_max: int) -> str:
    """A text that can be encoded, of at most so many characters; what is missing is marked.

    What stands for a byte that is no UTF-8 (file names, arguments) is written out.
    """
    if not text.isascii():
        text = text.encode("utf-8", "backslashreplace").decode()
    return text if len(text) <= size_max else text[: size_max - 1] + ELLIPSIS


def current_job() -> str:
    """The id of the scheduler's job that this process is part of, as `slurm:1234_5`; empty if there is none.

    `MOTOOLS_JOB_ID`, where it is set, is the id. All processes of a job have the same one, whatever their rank.
    """
    return job_of(os.environ)[1]


def job_of(environment: Mapping[str, str]) -> tuple[str, str]:
    """The scheduler's name and the job's id."""
    scheduler, number = "", ""
    for name, find in _SCHEDULERS:
        if number := find(environment):
            scheduler = name
            break
    own = environment.get(JOB_VARIABLE, "").strip()
    job_id = own or (f"{scheduler}:{number}" if number else "")
    return scheduler, shortened(job_id, NAME_SIZE_MAX)


def _slurm(environment: Mapping[str, str]) -> str:
    array, task = environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else environment.get("SLURM_JOB_ID", "")


def _pbs(environment: Mapping[str, str]) -> str:
    return environment.get("PBS_JOBID", "")


def _lsf(environment: Mapping[str, str]) -> str:
    number, index = environment.get("LSB_JOBID", ""), environment.get("LSB_JOBINDEX", "0")
    return f"{number}[{index}]" if number and index not in ("", "0") else number


def _sge(environment: Mapping[str, str]) -> str:
    # JOB_ID alone is anybody's; with a task, which is "undefined" outside of arrays, it is the Grid Engine's.
    number, task = environment.get("JOB_ID", ""), environment.get("SGE_TASK_ID", "")
    if not number or not task:
        return ""
    return number if task == "undefined" else f"{number}.{task}"


def _flux(environment: Mapping[str, str]) -> str:
    return environment.get("FLUX_JOB_ID", "")


def _ray(environment: Mapping[str, str]) -> str:
    return environment.get("RAY_JOB_ID", "")


def _kubernetes(environment: Mapping[str, str]) -> str:
    return environment.get("HOSTNAME", "") if environment.get("KUBERNETES_SERVICE_HOST") else ""


_SCHEDULERS: Final = (
    ("slurm", _slurm),
    ("pbs", _pbs),
    ("lsf", _lsf),
    ("sge", _sge),
    ("flux", _flux),
    ("ray", _ray),
    ("kubernetes", _kubernetes),
)
"""Those that give out jobs before those that they give out themselves: Ray runs in a job of Slurm, or in a pod."""
