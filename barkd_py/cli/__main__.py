"""`python -m barkd_py.cli`"""

from barkd_py.cli import main

if __name__ == "__main__":
    main()
