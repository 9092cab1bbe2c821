"""The section of the page in a config: address, who may come, and how much may be asked of the server."""

from typing import Annotated

from nada_jax.errors import UserError
from nada_jax.latents.editing import Edit
from nada_jax.portraits.settings import Clips, InversionSettings
from nada_jax.settings import Count, Positive, Rule, Section, one_of
from nada_jax.style.settings import Network

VARIANTS = ("", "ffhq")  # of the recipes in configs/
LOOPBACK = ("127.0.0.1", "localhost", "::1")


class Demo(Section, name="demo"):
    """The page; `config.demo`."""

    port: Annotated[int, Rule(lambda x: 0 <= x < 2**16, "a port in 0..65535; 0 takes any")]
    host: Annotated[str, Rule(bool, "an address of this machine, such as 127.0.0.1")]
    names: tuple[str, ...]
    auth: str
    open: bool
    share: bool
    presets: tuple[str, ...]
    variant: Annotated[str, one_of(VARIANTS)]
    upload_megabytes: Positive
    pixels: Count
    jobs: Count
    waiting: Count
    minutes: Positive
    hours: Positive
    disk_megabytes: Positive

    def check(self) -> None:
        """Who is not on this machine needs a password, or an explicit word that none is needed."""
        name, colon, password = self.auth.partition(":")
        if self.auth and not all((name, colon, password)):
            # Without its value, which may be a password.
            what = (
                f"no {'user before' if not name else 'password after'} the colon"
                if colon
                else "no colon"
            )
            raise UserError(f"demo.auth has {what}; expected user:password, or nothing")
        closed = not self.auth and not self.open
        if closed:
            self.need(
                self.host in LOOPBACK,
                "host",
                "127.0.0.1, or --config.demo.auth=user:password beside it, or --config.demo.open=True, by which "
                "whoever reaches this machine may use its time and disk without a password",
            )
            self.need(
                not self.share,
                "share",
                "False, or --config.demo.auth=user:password beside it, or --config.demo.open=True, by which whoever "
                "has the public link may use this machine's time and disk without a password",
            )


class Settings(InversionSettings):
    """All of `configs/demo.py`."""

    demo: Demo
    clip: Clips
    edit: Edit
    vgg: Network

    def check(self) -> None:
        """As `configs/edit.py` has it: what has a weight has a network."""
        good = not self.edit.identity or bool(self.identity.weights)
        self.edit.need(good, "identity", "0, or a network of faces as identity.weights")
