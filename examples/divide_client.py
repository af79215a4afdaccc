"""Sends tasks by name: this program has none of their code. See ``divide_tasks.py``."""

from queue_core.worker import App

app = App("divide_client", backend="rpc://")  # the broker is in QUEUE_CORE_URL


def main() -> None:
    """Divide twice, once by zero."""
    result = app.send_task("divide", (10, 4), queue="divide")
    print(f"10 / 4 = {result.get(timeout=30)}")

    handler = app.signature("error_handler", queue="error")
    result = app.send_task("divide", (1, 0), queue="divide", link_error=handler)
    try:
        result.get(timeout=30)
    except ZeroDivisionError as error:
        print(f"1 / 0: {error}")

    half = app.signature("divide", (2,), queue="divide")
    chain = app.signature("divide", (100, 5), queue="divide") | half
    print(f"100 / 5 / 2 = {chain.delay().get(timeout=30)}")


if __name__ == "__main__":
    main()
