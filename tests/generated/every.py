"Every family, registered."

from . import FAMILIES, films, images, kits, said, surfaces, tables, texts, weights

__all__ = ['FAMILIES', 'films', 'images', 'kits', 'said', 'surfaces', 'tables', 'texts', 'weights']
