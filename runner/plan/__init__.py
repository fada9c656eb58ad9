"""Pure decisions: values in, a plan with its cause out."""
