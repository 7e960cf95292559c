"""One line of the bench's table."""
from dataclasses import dataclass
from typing import Optional


@dataclass
class Row:
    what: str
    unit: str
    mayfly: Optional[float]
    goal: Optional[float] = None
    firecracker: Optional[float] = None
    qemu: Optional[float] = None

    def ratio(self):
        """The best peer's figure as a multiple of ours."""
        peers = [value for value in (self.firecracker, self.qemu) if value is not None]
        if not peers or not self.mayfly:
            return "-"
        return f"{min(peers) / self.mayfly:.1f}x"
