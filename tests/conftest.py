import hypothesis

# Two cores shared with others: how long one example takes says nothing.
hypothesis.settings.register_profile("shared_machine", deadline=None, max_examples=40)
hypothesis.settings.load_profile("shared_machine")
