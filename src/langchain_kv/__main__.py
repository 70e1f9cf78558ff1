"""``python -m langchain_kv`` is ``lckv``."""

import sys

from langchain_kv.cli.main import main

sys.exit(main())
