"""Task ``gsm8k``: a language model fine-tuned on grade school maths problems (Table III)."""
