"""Back end `inductor`: stretches of lines become kernels of torch's compiler, each proven before it is used."""

from .form import Inductor

__all__ = ["Inductor"]
