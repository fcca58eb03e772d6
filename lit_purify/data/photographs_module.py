"""What data modules of image files of any size share: one preprocessing, files read in turn."""

from __future__ import annotations

from collections.abc import Sequence

from lit_purify.data.base import ImageDataModule
from lit_purify.data.image_files import Labelled
from lit_purify.data.photographs import Photographs
from lit_purify.data.preprocessing import preprocessing_named
from lit_purify.types import Auto


class PhotographsDataModule(ImageDataModule):
    """Photographs in [0, 1] for evaluation, made one size.

    ``index`` in a batch is the position in the full source, in its order, also where only some
    images are taken. Files are read when their turn comes, and up to 1000 of them also before the
    run, so that a damaged one shows in time.

    Args:
        source: where the files are.
        preprocessing: what makes photographs the classifier's size, by RobustBench's names:
            ``Res256Crop224`` (shorter side to 256, bilinear; centre of 224 x 224),
            ``BicubicRes256Crop224``, ``Res224``, ``Crop288`` and the like.
        batch_size: images per batch, for each process; ``auto`` chooses by the memory.
        limit: evaluate on the first ``limit`` images only, or on all where there are fewer; applied
            to ``indices`` where both are given.
        indices: positions in the source of the images to evaluate on, in this order.
        num_workers: loading processes; 0 loads in the main one.

    Attributes:
        image_shape: (3, H, W) of every image.

    Raises:
        InputError: an argument is not as above.
    """

    image_shape: tuple[int, int, int]

    def __init__(
        self,
        *,
        source: str,
        preprocessing: str,
        batch_size: int | Auto,
        limit: int | None,
        indices: Sequence[int] | None,
        num_workers: int,
    ) -> None:
        super().__init__(
            source=source,
            batch_size=batch_size,
            limit=limit,
            num_workers=num_workers,
            indices=indices,
        )
        size = preprocessing_named(preprocessing).size
        self.preprocessing = preprocessing
        self.image_shape = (3, size, size)

    def photographs(self, samples: Labelled) -> Photographs:
        """Those of the source's files that are evaluated, having looked whether they can be read.

        Args:
            samples: every file of the source, in its order.

        Raises:
            InputError: ``indices`` go beyond the source, or a file is damaged.
        """
        positions = self.positions(len(samples))
        photographs = Photographs(
            [samples[i] for i in positions], positions, preprocessing=self.preprocessing
        )
        photographs.check()
        return photographs
