def memory(build, runs):
    return []


def instructions(build, runs):
    return []
