#!/usr/bin/env bash
# The oldest supported version of each agent framework, and the recipes for those without an adapter, each in an
# environment of its own. Names are arguments: `scripts/compat.sh crewai recipes`; by default all. Of the OpenAI Agents
# SDK and of LangChain the whole suite is run.
set -euo pipefail
cd "$(dirname "$0")/.."

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
environment() {
  printf '\n== %s\n' "$1"
  "${PYTHON:-python3}" -m venv "$scratch/$1"
  "$scratch/$1/bin/python" -m pip install --quiet --disable-pip-version-check \
    pytest pytest-asyncio pytest-xdist hypothesis httpx ".[testing,redis]" "${@:2}"
}
check() {
  local name=$1 tests=${tests:-$1}
  environment "$@"
  # shellcheck disable=SC2086 # several packages
  [ -z "${with:-}" ] || "$scratch/$name/bin/python" -m pip install --quiet --no-deps $with
  "${BIN:-.venv/bin}/python" scripts/framework_checks.py "$tests" --python "$scratch/$name/bin/python" --numprocesses 2
  rm -rf "${scratch:?}/$name"
}
suite() {
  environment "$@"
  "$scratch/$1/bin/python" -m pytest --quiet --numprocesses 2 "tests/integrations/$1"
  rm -rf "${scratch:?}/$1"
}

names=("$@")
[ $# -gt 0 ] || names=(openai_agents langchain pydantic_ai llama_index google_adk crewai agent_framework litellm recipes)
for name in "${names[@]}"; do
  case $name in
    openai_agents) suite openai_agents "openai-agents==0.12.5" "openai==2.26.0" ;;
    langchain)
      suite langchain "langchain-core==1.6.0" "langchain==1.4.0" "langgraph==1.2.11" \
        langchain-openai langchain-anthropic langchain-google-genai langchain-tests
      ;;
    pydantic_ai) check pydantic_ai "pydantic-ai-slim[openai]==2.66.0" ;;
    llama_index) check llama_index "llama-index-core==0.14.22" llama-index-llms-openai "openai>=2.33" ;;
    google_adk) check google_adk "google-adk==2.10.0" ;;
    agent_framework) check agent_framework "agent-framework-core==1.23.0" agent-framework-openai ;;
    crewai) check crewai "crewai==1.15.25" ;;
    litellm)
      check litellm "litellm[proxy]==1.100.0"
      # From 1.110 on the extra needs a package of its own, which is not on every index: the code is in litellm's wheel.
      with="litellm==1.110.2 semver" check litellm "litellm[proxy]==1.108.7"
      ;;
    recipes)
      tests=recipes check ag2 "ag2[openai]==1.2.1"
      tests=recipes check autogen "autogen-agentchat==0.7.5" "autogen-ext[openai]==0.7.5"
      tests=recipes check smolagents "smolagents[openai]==1.26.0"
      ;;
    *) echo "no such framework: $name" >&2; exit 2 ;;
  esac
done
