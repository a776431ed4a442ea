"""Clock, temperature and throttle bits of the board, where it tells them."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

VCGENCMD_TIMEOUT_S = 5

# https://www.raspberrypi.com/documentation/computers/os.html, get_throttled: bit n now, bit n + 16 since boot.
THROTTLE_BITS = ("under-voltage", "clock capped", "throttled", "soft temperature limit")


@dataclass(frozen=True)
class BoardState:
    """What the board says of itself; None where it does not.

    Attributes
    ----------
    throttled : int or None
        The firmware's bits, see ``THROTTLE_BITS``.
    """

    clock_hz: int | None
    temperature_c: float | None
    throttled: int | None


def read_board_state(root: Path = Path("/")) -> BoardState:
    """Read clock, temperature and throttle bits from /sys, the bits else from vcgencmd."""
    clock_khz = _read_integer(root / "sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", 10)
    temperature_milli_c = _read_integer(root / "sys/class/thermal/thermal_zone0/temp", 10)
    throttled = _read_integer(root / "sys/devices/platform/soc/soc:firmware/get_throttled", 16)
    return BoardState(
        clock_hz=None if clock_khz is None else clock_khz * 1000,
        temperature_c=None if temperature_milli_c is None else temperature_milli_c / 1000,
        throttled=_ask_vcgencmd() if throttled is None else throttled,
    )


def _read_integer(path: Path, base: int) -> int | None:
    try:
        return int(path.read_text(encoding="ascii").strip(), base)
    except (OSError, ValueError):  # not every board, kernel and user can read it
        return None


def _ask_vcgencmd() -> int | None:
    program = shutil.which("vcgencmd")
    if program is None:
        return None
    try:
        finished = subprocess.run(
            [program, "get_throttled"], capture_output=True, text=True, timeout=VCGENCMD_TIMEOUT_S, check=True
        )
        return int(finished.stdout.strip().removeprefix("throttled="), 16)
    except (OSError, ValueError, subprocess.SubprocessError):  # a user outside the group video may not ask
        return None
