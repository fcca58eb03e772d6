"""The command line: LightningCLI with this project's defaults."""
from lightning.pytorch.cli import LightningCLI
from lightning.pytorch import LightningModule, LightningDataModule

def main(args=None) -> None:
    LightningCLI(LightningModule, LightningDataModule, subclass_mode_model=True, subclass_mode_data=True,
      args=args, auto_configure_optimizers=False, parser_kwargs={"parser_mode": "omegaconf"} if False else {})
