"""Does what `redis-cli` does with the options that the documents use: no Python package brings it.

-u URL --scan --pattern PATTERN    prints the keys that match
-u URL COMMAND [ARGUMENT…]         sends a command, and prints the answer
-u URL                             sends the commands on standard input, one a line
"""

import sys

import valkey


def main(arguments: list[str]) -> None:
    assert arguments[0] == "-u", arguments
    server = valkey.Valkey.from_url(arguments[1])
    if arguments[2:3] == ["--scan"]:
        assert arguments[3] == "--pattern", arguments
        for key in server.scan_iter(match=arguments[4]):
            sys.stdout.buffer.write(key + b"\n")
        return
    given = [arguments[2:]] if arguments[2:] else [line.split() for line in sys.stdin]
    for words in given:
        answer = server.execute_command(*words)
        print(answer.decode() if isinstance(answer, bytes) else answer)


main(sys.argv[1:])
