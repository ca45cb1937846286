"""Opening a store's URL: what is refused, and that no secret is ever shown."""

import errno

import pyarrow as pa
import pytest
from pyarrow import fs

from qcrd_core.errors import StoreAwayError, StoreError
from qcrd_core.store.filesystem import (
    access_error,
    describe,
    is_access_error,
    may_pass,
    open_file_system,
    split_options,
    without_secrets,
)


def _aws(code, why="Because."):
    place = "When getting information for key 'q' in bucket 'b'"
    return OSError(f"{place}: AWS Error {code} during HeadObject operation: {why}")


SECRET = "wJa/lr+XU?tn"
ON_LOOPBACK = "endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            f"s3://AKIA:{SECRET}@bucket/q",
            r"contain credentials; got s3://\*\*\*@bucket/q\. Set AWS",
        ),
        ("s3://AKIA:x%2Fy@bucket/q?region=x", r"contain credentials; got s3://\*\*\*@bucket/q\."),
        (f"s3://bucket/q?secret_key={SECRET}", r"contain credentials; got s3://bucket/q\. Set AWS"),
        (
            f"abfs://files/q?Client_Secret={SECRET}",
            "cannot contain credentials; got abfs://files/q",
        ),
        (f"s3://bucket/q?x={SECRET}", r"got s3://bucket/q \(Unexpected query parameter"),
        (f"s3://buck et/q?x={SECRET}", r"got s3://buck et/q \(Cannot parse URI: 's3:"),
        (f"ftpx://host/q?x={SECRET}", "must be a folder or an object-store URL; got ftpx://host"),
        (f"hdfs://127.0.0.1:9/q?x={SECRET}", r"hdfs://127\.0\.0\.1:9/q could not be reached: "),
        ("s3://?region=us-east-1", "must name a bucket; got s3://"),
    ],
    ids=[
        "password",
        "escaped",
        "secret",
        "azure",
        "unknown-option",
        "not-a-url",
        "scheme",
        "absent",
        "no-bucket",
    ],
)
def test_open_file_system_by_wrong_url_is_refused_without_its_secret(url, message):
    with pytest.raises(StoreError, match=message) as caught:
        open_file_system(url)
    assert SECRET not in str(caught.value)
    assert "AKIA" not in str(caught.value)


def test_open_file_system_with_options_takes_them_and_bounds_retries():
    system, root = open_file_system(f"s3://bucket/a@b/?{ON_LOOPBACK}&allow_bucket_creation=true")
    assert isinstance(system, fs.S3FileSystem)
    assert root == "bucket/a@b"
    assert system.region == "us-east-1"


def test_open_file_system_of_folder_with_odd_name_is_that_folder(tmp_path):
    folder = tmp_path / "a b?c=%20#d:e@f"
    system, root = open_file_system(str(folder))
    assert (type(system), root) == (fs.LocalFileSystem, str(folder))
    assert without_secrets(str(folder)) == str(folder)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (f"s3://bucket/q?{ON_LOOPBACK}", "s3://bucket/q"),
        (f"s3://AKIA:{SECRET}@bucket/q?region=x", "s3://***@bucket/q"),
        ("s3://bucket/me:you@home/q", "s3://bucket/me:you@home/q"),
        ("file:///data/q", "file:///data/q"),
    ],
    ids=["options", "credentials", "odd-key", "file"],
)
def test_without_secrets_keeps_the_address_alone(url, shown):
    assert without_secrets(url) == shown


def test_split_options_leaves_a_local_path_with_a_question_mark_whole():
    assert split_options(f"s3://bucket/q?{ON_LOOPBACK}") == ("s3://bucket/q", f"?{ON_LOOPBACK}")
    assert split_options("s3://bucket/q") == ("s3://bucket/q", "")
    assert split_options("/data/what?") == ("/data/what?", "")


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (OSError(28, "No space left on device"), "No space left on device"),
        (OSError("Not\n  found."), "Not found"),
        (
            _aws("ACCESS_DENIED", "No response body."),
            "ACCESS_DENIED from HeadObject: No response body",
        ),
        (pa.ArrowInvalid("Path is wrong"), "Path is wrong"),
    ],
    ids=["system", "many-lines", "aws", "arrow"],
)
def test_describe_gives_one_line(error, text):
    assert describe(error) == text


@pytest.mark.parametrize(
    ("error", "passes"),
    [
        (OSError("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 7"), True),
        (OSError("AWS Error SLOW_DOWN during PutObject operation: Please reduce"), True),
        (OSError("AWS Error UNKNOWN (HTTP status 502) during PutObject operation"), True),
        (OSError(errno.ESTALE, "Stale file handle"), True),
        (OSError("AWS Error ACCESS_DENIED during PutObject operation: Forbidden"), False),
        (OSError("AWS Error NO_SUCH_BUCKET during PutObject operation"), False),
        (OSError(errno.ENOSPC, "No space left on device"), False),
        (pa.ArrowInvalid("damaged"), False),
    ],
    ids=["network", "busy", "gateway", "stale", "denied", "no-bucket", "full", "damaged"],
)
def test_may_pass_is_of_the_network_not_of_the_user(error, passes):
    assert may_pass(error) is passes


@pytest.mark.parametrize(
    ("error", "remedy"),
    [
        (_aws("REQUEST_TIME_TOO_SKEWED"), "Set this machine's clock"),
        (_aws("ACCESS_DENIED"), "Check AWS_ACCESS_KEY_ID"),
        (_aws("INVALID_ACCESS_KEY_ID"), "Check AWS_ACCESS_KEY_ID"),
        (_aws("SIGNATURE_DOES_NOT_MATCH"), "Check AWS_ACCESS_KEY_ID"),
        (_aws("UNKNOWN (HTTP status 400)", "Exception ExpiredToken"), "AWS_SESSION_TOKEN"),
        (OSError("Bucket 'b' not found"), "Create the bucket"),
        (_aws("NETWORK_CONNECTION"), "Check the address"),
        (_aws("METHOD_NOT_ALLOWED"), "Check its address, bucket and credentials"),
    ],
    ids=["clock", "denied", "key", "secret", "expired", "bucket", "network", "other"],
)
def test_access_error_of_an_object_store_says_what_to_mend(error, remedy):
    raised = access_error(error, "s3://b/q", "read")
    assert remedy in str(raised)
    assert isinstance(raised, StoreAwayError) is may_pass(error)


def test_access_error_of_an_absent_file_or_a_folder_names_no_credentials():
    absent = FileNotFoundError(errno.ENOENT, "No such file or directory")
    assert str(access_error(absent, "s3://b/q", "read")).endswith("such file or directory.")
    assert str(access_error(OSError("full"), "/data/q", "written")).endswith("written: full.")


@pytest.mark.parametrize(
    ("error", "is_access"),
    [
        (_aws("ACCESS_DENIED"), True),
        (PermissionError(errno.EACCES, "Permission denied"), True),
        (OSError("Couldn't deserialize thrift"), False),
        (pa.ArrowInvalid("Parquet magic bytes not found"), False),
    ],
    ids=["aws", "folder", "damaged", "no-parquet"],
)
def test_is_access_error_is_not_of_what_the_file_holds(error, is_access):
    assert is_access_error(error) is is_access
