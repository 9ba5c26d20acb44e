"""Studies: experiments that choose a setting or answer one question. Each module writes one csv to results/studies/."""

from cam_core.environment import keep_pages

keep_pages()
