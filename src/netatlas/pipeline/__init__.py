"""The pipeline's steps: execute, validate, collect the ledger, render the site, and the build that drives them."""
