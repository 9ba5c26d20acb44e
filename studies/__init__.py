"""What is chosen, and what is settled once: each module writes one csv to results/studies/."""

from cam_core.environment import keep_pages

keep_pages()
