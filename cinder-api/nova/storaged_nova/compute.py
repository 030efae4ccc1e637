"""The starter of nova-compute that knows storaged's volumes. All options are nova-compute's own."""


def main():
    # Nova's starter comes first: it prepares the interpreter for the way in which Nova runs things at once, which
    # has to be done before anything else of Nova is there.
    from nova.cmd import compute

    import storaged_nova

    storaged_nova.register()
    return compute.main()
