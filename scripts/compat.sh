#!/usr/bin/env bash
# The oldest supported version of each agent framework, and the recipes for those without an adapter, each in an
# environment of its own. Names are arguments: `scripts/compat.sh crewai recipes`; by default all.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
check() {
  local name=$1 tests=${tests:-$1}
  shift
  printf '\n== %s\n' "$name"
  "${PYTHON:-python3}" -m venv "$scratch/$name"
  "$scratch/$name/bin/python" -m pip install --quiet --disable-pip-version-check \
    pytest pytest-asyncio pytest-xdist hypothesis httpx ".[testing]" "$@"
  "${BIN:-.venv/bin}/python" scripts/framework_checks.py "$tests" --python "$scratch/$name/bin/python" --numprocesses 2
  rm -rf "${scratch:?}/$name"
}

names=("$@")
[ $# -gt 0 ] || names=(pydantic_ai llama_index google_adk crewai agent_framework recipes)
for name in "${names[@]}"; do
  case $name in
    pydantic_ai) check pydantic_ai "pydantic-ai-slim[openai]==2.66.0" ;;
    llama_index) check llama_index "llama-index-core==0.14.22" llama-index-llms-openai "openai>=2.33" ;;
    google_adk) check google_adk "google-adk==2.10.0" ;;
    agent_framework) check agent_framework "agent-framework-core==1.23.0" agent-framework-openai ;;
    crewai) check crewai "crewai==1.15.25" ;;
    recipes)
      tests=recipes check ag2 "ag2[openai]==1.2.1"
      tests=recipes check autogen "autogen-agentchat==0.7.5" "autogen-ext[openai]==0.7.5"
      tests=recipes check smolagents "smolagents[openai]==1.26.0"
      ;;
    *) echo "no such framework: $name" >&2; exit 2 ;;
  esac
done
