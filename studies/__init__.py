"""What is chosen, and what is settled once: each module writes one csv to results/studies/."""
