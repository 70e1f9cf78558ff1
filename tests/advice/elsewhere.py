"""The tests that follow advice where that takes more than a case."""

from __future__ import annotations

from typing import Final

FOLLOWED: Final = {
    "unit/test_document_forms.py::test_only_documents_are_kept": ["keep JSON values in KVStore, bytes in"],
    "unit/test_document_forms.py::test_a_subclass_with_fields_of_its_own_is_refused": ["put them into its metadata"],
    "unit/test_refusals.py::test_a_document_in_a_store_of_json_or_bytes_is_told_of_the_docstore": [
        "keep Documents in DocumentStore"
    ],
    "contract/test_parent_documents.py::test_only_a_document_store_notes_children": ["give DocumentStore(...)"],
    "contract/test_parent_documents.py::test_parents_of_others_are_refused_before_anything_is_done": [
        "Remove their children from the vector store by"
    ],
    "contract/test_parent_documents.py::test_a_vector_store_that_says_it_does_not_delete_is_believed": [
        "repeat the call once it can"
    ],
    "contract/test_llm_cache.py::test_rows_in_another_order_are_refused": ["add ORDER BY prompt, llm, idx"],
    "unit/test_engine_backend.py::test_what_a_data_api_cannot_do_in_one_step_another_target_can": [
        "in one step with looking at it: use a target that can"
    ],
    "contract/test_collection_forms.py::test_being_overtaken_all_the_time_is_told": [
        "try again, or have fewer of them change one key"
    ],
    "unit/test_embedding_cache.py::test_without_numpy_an_array_is_refused_and_lists_are_not": [
        "embed_documents_array needs numpy: pip install 'langchain-kv[vector]', or use embed_documents"
    ],
    "unit/test_embedding_cache.py::test_a_model_with_other_settings_under_the_same_name_is_told": [
        "give a model with other settings another name, or dimensions"
    ],
    "unit/test_encryption.py::test_without_its_library_the_error_names_the_extra": [
        "pip install 'langchain-kv[encryption]'"
    ],
    "faults/test_proxies.py::test_the_files_of_trusted_authorities_are_read_when_a_store_is_made": [
        "No secure connection to"
    ],
    "unit/test_dataapi_retry.py::test_part_that_gets_no_turn_before_the_deadline_is_not_sent": [
        "raise deadline_s, or use smaller batches"
    ],
    "unit/test_dataapi_backend.py::test_scan_that_is_answered_the_same_state_for_ever_ends": [
        "twice: the scan would never end. Try again"
    ],
    "cli/test_process.py::test_a_server_that_may_not_start_says_why": [
        "lckv serve keeps values itself: give",
        "needs a token, as others can reach it: give",
    ],
    "cli/test_process.py::test_a_user_and_a_password_open_the_door_beside_a_token": [
        "--user needs a name and its password: give",
        "--password needs the user that it is of: give",
    ],
    "unit/test_server_doors.py::test_white_space_around_the_servers_token_is_taken_off": [
        "has a line end or a control character in it: give one line of text"
    ],
    "unit/test_loop_thread.py::test_cancelled_operation_is_an_error_of_ours": [
        "The operation was cancelled on langchain-kv's event loop: repeat it"
    ],
    "unit/test_loop_thread.py::test_call_on_the_loop_thread_is_refused": ["use the async method there"],
    "unit/test_loop_thread.py::test_forked_child_starts_a_loop_of_its_own_and_the_parents_goes_on": [
        "start a new one in the child"
    ],
    "unit/test_loop_thread.py::test_exit_handler_of_the_user_may_still_call": ["finish before it ends"],
    "unit/test_work_queue.py::test_close_ends_what_is_queued_then_refuses": ["the store was closed; open a new one"],
    "unit/test_loop_thread.py::test_interrupt_inside_a_coroutine_is_an_error_of_ours_and_the_loop_goes_on": [
        "The operation was interrupted on langchain-kv's event loop: repeat it"
    ],
    "unit/test_work_queue.py::test_an_interrupt_in_a_lane_ends_no_event_loop_but_is_told": [
        "The thread that ran this call was interrupted: repeat the call"
    ],
    "unit/test_setup.py::test_an_interrupt_in_the_set_up_is_told_as_such_and_it_is_tried_again": [
        "The set-up of the collection was interrupted: repeat the call"
    ],
    "unit/test_work_queue.py::test_a_lane_whose_thread_cannot_be_started_says_so_and_starts_it_later": [
        "end some of its threads, or raise the limit (ulimit -u)"
    ],
    "unit/test_testing_fixture.py::test_a_client_that_gives_up_is_not_waited_for": [
        "end what the test started before the test ends"
    ],
    "meta/test_wheel.py::test_it_works_with_the_dependencies_it_declares": [
        "pip install 'langchain-kv[testing]'",
        "pip install 'langchain-kv[cli]'",
    ],
    "faults/test_greenlets.py::test_a_cluster_is_refused_to_greenlets_and_a_server_is_not": [
        "run lckv serve --db with this URL in a process of its own, and give its http: URL"
    ],
    "unit/test_cluster_urls.py::test_a_driver_that_is_missing_or_broken_is_told": [
        "pip install 'langchain-kv[cassandra]'",
        "Install a binary wheel",
    ],
    "unit/test_bundle_urls.py::test_a_file_that_is_no_bundle_is_told": ["ownload it again from"],
    "unit/test_places_of_others.py::test_a_store_on_a_place_that_cannot_be_pickled_says_so": [
        "make the store anew where it is wanted"
    ],
    "unit/test_places_of_others.py::test_two_packages_with_one_scheme_are_an_error_that_names_both": [
        "uninstall all of them but one"
    ],
    "cluster/test_cassandra_tls.py::test_files_that_are_no_certificates_are_told": [
        "check ca_file=, cert_file= and key_file="
    ],
    "cluster/test_cassandra_rows.py::test_a_store_does_not_open_them": [
        "give the URL of the cluster's Data API (https:...)"
    ],
}
"""A test, and pieces of the messages."""

ELSEWHERE: Final = {fragment: name for name, fragments in FOLLOWED.items() for fragment in fragments}
