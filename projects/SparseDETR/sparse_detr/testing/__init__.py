"""Programs and builders that prove the package equal to the released implementations."""
