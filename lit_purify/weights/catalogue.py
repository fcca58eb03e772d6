"""Published weights: every file that this project can use."""

from __future__ import annotations

from lit_purify.types import InputError, did_you_mean
from lit_purify.weights.published import Weights

EDM = "https://nvlabs-fi-cdn.nvidia.com/edm/pretrained"


def drive_url(number: str) -> str:
    """The address of a public file in Google Drive, behind its question about large files."""
    return f"https://drive.usercontent.google.com/download?id={number}&export=download&confirm=t"


WEIGHTS = {
    weights.name: weights
    for weights in (
        Weights(
            name="ddpm_cifar10",
            file_name="ddpm_cifar10_ema.ckpt",
            url="https://heibox.uni-heidelberg.de/f/2e4f01e2d9ee49bab1d5/?dl=1",
            used_for="denoiser, CIFAR-10: DDPM of Ho et al., averaged weights (the paper's)",
            licence="MIT (of the conversion)",
            size=143_046_049,
            hash="md5:1fa350b952534ae442b1d5235cce5cd3",
        ),
        Weights(
            name="google_ddpm_cifar10_32",
            file_name="google_ddpm_cifar10_32.safetensors",
            url="https://huggingface.co/google/ddpm-cifar10-32/resolve/"
            "267b167dc01f0e4e61923ea244e8b988f84deb80/diffusion_pytorch_model.safetensors",
            used_for="denoiser, CIFAR-10: DDPM of Ho et al. in the format of diffusers",
            licence="Apache-2.0",
            hash="sha256:1558dbe3fb093b0857d473e376b711eeda1b186c557be5e85b3a56300cd49f0f",
        ),
        Weights(
            name="guided_diffusion_256_uncond",
            file_name="256x256_diffusion_uncond.pt",
            url="https://openaipublic.blob.core.windows.net/diffusion/jul-2021/"
            "256x256_diffusion_uncond.pt",
            used_for="denoiser, ImageNet 256x256: guided diffusion, unconditional (the paper's)",
            licence="MIT",
            size=2_211_383_297,
            hash="sha256:a37c32fffd316cd494cf3f35b339936debdc1576dad13fe57c42399a5dbc78b1",
        ),
        # A public copy has 1,707,310,559 bytes and MD5 db26ca82b7ea36b75199abf6ed94339d; whether it
        # is this file is not known.
        Weights(
            name="score_sde_cifar10",
            file_name="score_sde_vp_cifar10_ddpmpp_deep_continuous_checkpoint_8.pth",
            url=drive_url("16_-Ahc6ImZV5ClUc0vM5Iivf8OJ1VSif"),
            used_for="denoiser, CIFAR-10: Score-SDE VP, DDPM++ deep continuous (DiffPure's)",
            licence="Apache-2.0 (of the code)",
        ),
        Weights(
            name="improved_diffusion_cifar10",
            file_name="cifar10_uncond_50M_500K.pt",
            url="https://openaipublic.blob.core.windows.net/diffusion/march-2021/"
            "cifar10_uncond_50M_500K.pt",
            used_for="denoiser, CIFAR-10: improved diffusion, cosine schedule of 4000 steps",
            licence="MIT",
        ),
        Weights(
            name="ddpm_celebahq_256",
            file_name="celeba_hq.ckpt",
            url="https://image-editing-test-12345.s3-us-west-2.amazonaws.com/checkpoints/"
            "celeba_hq.ckpt",
            used_for="denoiser, CelebA-HQ 256x256: DDPM in Ho et al.'s format (SDEdit's)",
            licence="MIT (of SDEdit's code)",
        ),
        Weights(
            name="edm_cifar10_uncond_vp",
            file_name="edm-cifar10-32x32-uncond-vp.pt",
            url=f"{EDM}/edm-cifar10-32x32-uncond-vp.pkl",
            used_for="denoiser, CIFAR-10: EDM unconditional, VP; to be converted",
            licence="CC BY-NC-SA 4.0",
            is_pickle=True,
        ),
        Weights(
            name="edm_cifar10_cond_vp",
            file_name="edm-cifar10-32x32-cond-vp.pt",
            url=f"{EDM}/edm-cifar10-32x32-cond-vp.pkl",
            used_for="denoiser, CIFAR-10: EDM class-conditional, VP; to be converted",
            licence="CC BY-NC-SA 4.0",
            is_pickle=True,
        ),
        Weights(
            name="robustbench_cifar10_standard",
            file_name="robustbench/cifar10/Linf/Standard.pt",
            url=drive_url("1t98aEuzeTL8P7Kpd5DIrCoCL21BNZUhC"),
            used_for="classifier, CIFAR-10: WRN-28-10, RobustBench's Standard (the paper's)",
            licence="MIT (RobustBench's default)",
        ),
        Weights(
            name="resnet50_imagenet",
            file_name="resnet50-0676ba61.pth",
            url="https://download.pytorch.org/models/resnet50-0676ba61.pth",
            used_for="classifier, ImageNet: torchvision's ResNet-50, V1 (the paper's)",
            licence="BSD-3-Clause (torchvision)",
            size=102_530_333,
            hash="sha256:0676ba61b6795bbe1773cffd859882e5e297624d384b6993f7c9e683e722fb8a",
            shared_with="torch hub",
        ),
        Weights(
            name="inception_fid",
            file_name="pt_inception-2015-12-05-6726825d.pth",
            url="https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/"
            "pt_inception-2015-12-05-6726825d.pth",
            used_for="features of the FID: pytorch-fid's Inception",
            licence="Apache-2.0",
            size=95_628_359,
            hash="sha256:6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
            shared_with="torch hub",
        ),
    )
}
"""Every published file that this project can use, by name."""


def find(name: str) -> Weights:
    """The entry of a name.

    Raises:
        InputError: there is none.
    """
    if name in WEIGHTS:
        return WEIGHTS[name]
    meant = did_you_mean(name, WEIGHTS) or f"; expected {', '.join(sorted(WEIGHTS))}."
    raise InputError(
        f"there are no weights {name!r}{meant} See 'python -m lit_purify weights list'"
    )
