"The tools of this repository: python -m scripts.run_tests, and the others."
