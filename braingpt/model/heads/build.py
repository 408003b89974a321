"""Builds the head that a model's settings ask for."""

from braingpt.model.config import ModelConfig, V2Config
from braingpt.model.heads.head import TiedHead
from braingpt.model.heads.softmax import TiedEmbedding
from braingpt.model.heads.vocabulary_columns import VocabularyColumns


def build_head(config: ModelConfig) -> TiedHead:
    """The head that a model's settings ask for, with fresh weights.

    Args:
        config: The model's settings.
    """
    if isinstance(config, V2Config) and config.head.kind == "columns":
        return VocabularyColumns(config.vocab, config.hidden, config.head.width)
    return TiedEmbedding(config.vocab, config.hidden)
