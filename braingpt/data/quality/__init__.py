"""Quality: cleaning, language, and the rules that decide which documents are kept.

`judge.py` puts them together.
"""

from braingpt.data.quality.config import QualityConfig, load_quality
from braingpt.data.quality.judge import Judge, Judged

__all__ = ["Judge", "Judged", "QualityConfig", "load_quality"]
